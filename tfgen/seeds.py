"""Seeds of the parts of what is drawn by one seed: chunks of samples, batches of a folder."""


def of_part(seed: int, index: int) -> int:
    """The seed of a part, int32: the seed itself for the first, and no two parts share one.

    seed + index * round(2^32 / golden ratio) mod 2^32. The factor is odd, so up to 2^32 parts of
    one seed differ; multiples of the golden ratio keep their distance, so the first 10,000 parts
    of seeds less than 100,000 apart differ as well.
    """
    word = (seed + index * 0x9E3779B1) % 2**32
    return word - 2**32 if word >= 2**31 else word
