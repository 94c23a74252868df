"""Records: their definition, the text that is written, and the reading of files of them."""
