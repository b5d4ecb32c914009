"""The process around one WebAssembly instance: what it is given, and how it is stopped."""
