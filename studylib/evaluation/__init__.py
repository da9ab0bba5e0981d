"""What an encoder is worth on a data set: features of its layers, measures of them, transfer by every protocol."""
