// A driver for the card of card.h: the functions of libcuda that the head calls, so that its own code
// launches the kernels, as it would on a card, on tensors in memory of the CPU. Modules are not looked
// into: kernels are those that this library was compiled with.

extern "C" {

// For callers that name kernels themselves: -1 for a name that none has, 1 for a launch that every card
// refuses, 0 once it has run.
int card_launch(
    const char* name, unsigned grid_x, unsigned grid_y, unsigned threads, unsigned shared_bytes, void** arguments) {
  const auto found = card::kernels().find(name);
  if (found == card::kernels().end()) return -1;
  return card::launch_if_granted(found->second, {grid_x, grid_y, 1}, {threads, 1, 1}, shared_bytes, arguments);
}

int cuInit(unsigned) {
  return 0;
}
// NVRTC asks a driver that it finds for a table of its own, and goes on without.
int cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return 500; // CUDA_ERROR_NOT_FOUND
}
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = 1;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? 0 : 101; // CUDA_ERROR_INVALID_DEVICE
}
// Capability 9.0, and nothing else.
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : 0; // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
  return 0;
}
static int context;
int cuDevicePrimaryCtxRetain(void** out, int) {
  *out = &context;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  return 0;
}
int cuCtxSetCurrent(void*) {
  return 0;
}
int cuCtxGetCurrent(void** out) {
  *out = &context;
  return 0;
}
int cuModuleLoadData(void** out, const void*) {
  *out = &context;
  return 0;
}
int cuModuleUnload(void*) {
  return 0;
}
int cuModuleGetFunction(void** out, void*, const char* name) {
  const auto found = card::kernels().find(name);
  if (found == card::kernels().end()) return 500; // CUDA_ERROR_NOT_FOUND
  *out = &found->second;
  return 0;
}
int cuLaunchKernel(
    void* function,
    unsigned grid_x, unsigned grid_y, unsigned grid_z,
    unsigned threads_x, unsigned threads_y, unsigned threads_z,
    unsigned shared_bytes, void*, void** arguments, void**) {
  const int refused = card::launch_if_granted(
      *static_cast<card::Kernel*>(function), {grid_x, grid_y, grid_z}, {threads_x, threads_y, threads_z}, shared_bytes, arguments);
  return refused ? 1 : 0; // CUDA_ERROR_INVALID_VALUE
}
// What is launched has run when the call returns, so that an event is there at once.
static int event;
int cuEventCreate(void** out, unsigned) {
  *out = &event;
  return 0;
}
int cuEventRecord(void*, void*) {
  return 0;
}
int cuEventSynchronize(void*) {
  return 0;
}
int cuEventDestroy_v2(void*) {
  return 0;
}
int cuGetErrorName(int, const char** text) {
  *text = "an error of the card on a CPU";
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "a card would have refused it";
  return 0;
}
}
