"""What tfp.bijectors lacks; conditioners are Keras layers."""
