"""What runs inside the WebAssembly module, beside the modules of the native REPL's process."""
