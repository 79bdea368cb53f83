"""Small encoders from scratch: tokenizer, initialization, masked-LM training, growing in depth."""
