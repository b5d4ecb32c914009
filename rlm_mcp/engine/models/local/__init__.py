"""Model servers of one's own: Ollama, LM Studio, llama.cpp, vLLM."""
