"""What a command settles before its stages run: options, input, encoder, prototypes; and the record of each stage."""
