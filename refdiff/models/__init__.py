"""Networks F(theta, x, c_noise, labels): the U-Net and a small MLP for 2-D data, under one contract."""
