/* Stands in for a library that Windows has and wine 8 lacks; wasmtime takes random bytes from it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) int ProcessPrng(unsigned char *place, size_t size) {
    return SystemFunction036(place, (ULONG)size) ? 1 : 0;
}
