"""The portable wall: Python in WebAssembly, in a process of its own, wherever wasmtime runs."""
