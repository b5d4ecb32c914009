/* Runs Python for WebAssembly in wasmtime's Windows library; see under_wine.py, which builds it.
 *
 * `guest.exe WASMTIME_DLL MODULE`: compiles the module, makes an instance that is given nothing but
 * random bytes and empty lists, and prints what some cells give. The last one never ends by itself;
 * another thread ends it, as the sandbox ends a cell that ignores its interrupt.
 *
 * The declarations are those of wasmtime's C API (wasm.h and wasmtime.h, version 50), of which only
 * what is used here is declared.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#define STACK_BYTES (32 << 20)
#define SHOWN_BYTES 300
#define I32 0
#define I64 1

typedef struct { size_t size; void *data; } vec_t;
typedef struct { uint8_t kind; union { int32_t i32; int64_t i64; uint64_t room[3]; } of; } val_t;
typedef struct { uint8_t kind; union { uint64_t room[3]; } of; } extern_t;
typedef struct { uint64_t store; size_t index; } instance_t;
typedef void *callback_t(void *env, void *caller, const val_t *args, size_t n, val_t *out, size_t m);

#define API(X) \
    X(void *, wasm_config_new, (void)) \
    X(void, wasmtime_config_epoch_interruption_set, (void *, int)) \
    X(void *, wasm_engine_new_with_config, (void *)) \
    X(void *, wasmtime_module_new, (void *, const void *, size_t, void **)) \
    X(void *, wasmtime_store_new, (void *, void *, void *)) \
    X(void *, wasmtime_store_context, (void *)) \
    X(void, wasmtime_context_set_epoch_deadline, (void *, uint64_t)) \
    X(void, wasmtime_engine_increment_epoch, (void *)) \
    X(void *, wasmtime_linker_new, (void *)) \
    X(void *, wasmtime_linker_define_func, (void *, const char *, size_t, const char *, size_t, \
        void *, callback_t *, void *, void *)) \
    X(void *, wasmtime_linker_define_unknown_imports_as_default_values, (void *, void *, void *)) \
    X(void *, wasmtime_linker_instantiate, (void *, void *, void *, instance_t *, void **)) \
    X(int, wasmtime_instance_export_get, (void *, instance_t *, const char *, size_t, extern_t *)) \
    X(void *, wasmtime_func_call, (void *, void *, const val_t *, size_t, val_t *, size_t, void **)) \
    X(uint8_t *, wasmtime_memory_data, (void *, void *)) \
    X(void, wasmtime_error_message, (void *, vec_t *)) \
    X(void, wasm_trap_message, (void *, vec_t *)) \
    X(void *, wasm_valtype_new, (uint8_t)) \
    X(void, wasm_valtype_vec_new, (vec_t *, size_t, void **)) \
    X(void, wasm_valtype_vec_new_empty, (vec_t *)) \
    X(void *, wasm_functype_new, (vec_t *, vec_t *))

#define DECLARE(result, name, parameters) static result (*name) parameters;
API(DECLARE)

static void *engine, *context;
static instance_t instance;

static void stop(const char *what) {
    printf("failed: %s\n", what);
    fflush(stdout);
    exit(1);
}

static void check(const char *what, void *error) {
    vec_t message = {0, 0};
    if (!error) return;
    wasmtime_error_message(error, &message);
    printf("failed: %s: %.*s\n", what, (int)message.size, (char *)message.data);
    fflush(stdout);
    exit(1);
}

static void load_library(const char *path) {
    HMODULE library = LoadLibraryA(path);
    if (!library) stop("the library cannot be loaded");
#define FIND(result, name, parameters) \
    if (!(name = (void *)GetProcAddress(library, #name))) stop("the library lacks " #name);
    API(FIND)
}

static extern_t exported(const char *name) {
    extern_t found;
    if (!wasmtime_instance_export_get(context, &instance, name, strlen(name), &found)) stop(name);
    return found;
}

static uint8_t *memory(void) {
    extern_t found = exported("memory");
    return wasmtime_memory_data(context, &found.of);
}

/* Calls an exported function; returns 0 and prints the reason where it is ended. */
static int call(const char *name, size_t count, const int32_t *given, int32_t *result) {
    extern_t function = exported(name);
    val_t values[4], out = {I32, {0}};
    void *trap = NULL, *error;
    vec_t message = {0, 0};
    for (size_t at = 0; at < count; at++) values[at] = (val_t){I32, {.i32 = given[at]}};
    error = wasmtime_func_call(context, &function.of, values, count, &out, result ? 1 : 0, &trap);
    if (error || trap) {
        error ? wasmtime_error_message(error, &message) : wasm_trap_message(trap, &message);
        printf("ended: %.*s\n", (int)message.size, (char *)message.data);
        return 0;
    }
    if (result) *result = out.of.i32;
    return 1;
}

static int32_t room(int32_t size) {
    int32_t given[4] = {0, 0, 1, size}, place;
    if (!call("cabi_realloc", 4, given, &place)) stop("no memory");
    return place;
}

static int32_t put(const char *text) {
    int32_t place = room((int32_t)strlen(text));
    memcpy(memory() + place, text, strlen(text));
    return place;
}

/* Enters the module: `run` is source, which defines `handle`; all else goes to `handle`. */
static void enter(const char *kind, const char *data) {
    int32_t given[4] = {put(kind), (int32_t)strlen(kind), put(data), (int32_t)strlen(data)}, answer;
    if (!call("enter", 4, given, &answer)) return;
    uint32_t *place = (uint32_t *)(memory() + answer);
    int shown = place[1] > SHOWN_BYTES ? SHOWN_BYTES : (int)place[1];
    printf("%s: %.*s\n", kind, shown, (char *)memory() + place[0]);
    call("cabi_post_enter", 1, &answer, NULL);
    fflush(stdout);
}

/* A list without items, written where the module says. */
static void *give_nothing(void *env, void *caller, const val_t *args, size_t n, val_t *out, size_t m) {
    uint32_t list[2] = {(uint32_t)(size_t)env, 0};
    memcpy(memory() + (uint32_t)args[0].of.i32, list, sizeof list);
    return NULL;
}

static void *give_random(void *env, void *caller, const val_t *args, size_t n, val_t *out, size_t m) {
    uint32_t size = (uint32_t)args[0].of.i64, list[2] = {(uint32_t)room((int32_t)size), size};
    for (uint32_t at = 0; at < size; at++) memory()[list[0] + at] = (uint8_t)rand();
    memcpy(memory() + (uint32_t)args[1].of.i32, list, sizeof list);
    return NULL;
}

static void define(void *linker, const char *name, int takes_size, callback_t *callback, int env) {
    void *types[2] = {wasm_valtype_new(takes_size ? I64 : I32), wasm_valtype_new(I32)};
    vec_t parameters, results;
    wasm_valtype_vec_new(&parameters, takes_size ? 2 : 1, types);
    wasm_valtype_vec_new_empty(&results);
    check(name, wasmtime_linker_define_func(linker, "host", 4, name, strlen(name),
        wasm_functype_new(&parameters, &results), callback, (void *)(size_t)env, NULL));
}

static void instantiate(void *module) {
    void *linker = wasmtime_linker_new(engine), *trap = NULL;
    define(linker, "wasi:random/random:get-random-bytes", 1, give_random, 0);
    define(linker, "wasi:cli/environment:get-environment", 0, give_nothing, 4);
    define(linker, "wasi:cli/environment:get-arguments", 0, give_nothing, 4);
    define(linker, "wasi:filesystem/preopens:get-directories", 0, give_nothing, 4);
    define(linker, "wasi:cli/terminal-stdin:get-terminal-stdin", 0, give_nothing, 0);
    define(linker, "wasi:cli/terminal-stdout:get-terminal-stdout", 0, give_nothing, 0);
    define(linker, "wasi:cli/terminal-stderr:get-terminal-stderr", 0, give_nothing, 0);
    check("linking", wasmtime_linker_define_unknown_imports_as_default_values(linker, context, module));
    check("an instance", wasmtime_linker_instantiate(linker, context, module, &instance, &trap));
    if (trap) stop("the instance was ended");
}

static void *compiled(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) stop("the module cannot be read");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    void *bytes = malloc(size), *module = NULL;
    if (fread(bytes, 1, size, file) != (size_t)size) stop("the module cannot be read");
    fclose(file);
    DWORD began = GetTickCount();
    check("compiling", wasmtime_module_new(engine, bytes, size, &module));
    printf("compiled: in %lu ms\n", GetTickCount() - began);
    fflush(stdout);
    free(bytes);
    return module;
}

static DWORD WINAPI end_soon(void *unused) {
    Sleep(2000);
    wasmtime_engine_increment_epoch(engine);
    return 0;
}

static const char HANDLER[] =
    "def handle(kind, data):\n"
    "    try:\n"
    "        return repr(eval(compile(data, '<cell>', 'eval'))).encode()\n"
    "    except BaseException as error:\n"
    "        return f'{type(error).__name__}: {error}'.encode()\n";

static DWORD WINAPI run(void *given) {
    char **argv = given;
    load_library(argv[1]);
    void *config = wasm_config_new();
    wasmtime_config_epoch_interruption_set(config, 1);
    engine = wasm_engine_new_with_config(config);
    void *module = compiled(argv[2]);
    context = wasmtime_store_context(wasmtime_store_new(engine, NULL, NULL));
    wasmtime_context_set_epoch_deadline(context, 1);
    instantiate(module);
    enter("run", HANDLER);
    enter("version", "__import__('sys').version");
    enter("words", "__import__('json').dumps(__import__('re').findall('[0-9]+', 'a1b22'))");
    enter("error", "1 / 0");
    enter("file", "open('C:/windows/win.ini').read()");
    enter("process", "__import__('os').system('cmd')");
    CreateThread(NULL, 0, end_soon, NULL, 0, NULL);
    enter("endless", "[0 for _ in iter(int, 1)]");
    fflush(stdout);
    return 0;
}

/* The thread that runs the module needs a larger stack than the first one has. */
int main(int argc, char **argv) {
    if (argc != 3) stop("give the library and the module");
    HANDLE thread = CreateThread(NULL, STACK_BYTES, run, argv, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    WaitForSingleObject(thread, INFINITE);
    return 0;
}
