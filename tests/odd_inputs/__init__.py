"""Odd inputs, made anew each time: what people's files look like when they break software."""
