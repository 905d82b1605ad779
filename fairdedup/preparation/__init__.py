"""What a command decides before its stages run: options, input, encoder and prototypes; and the record of stages."""
