// A CUDA device that computes nothing, for a torch that was built without CUDA. Autograd takes it for a real one.
// Streams and events are numbers; it is counted how often each stream is waited for or waits.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <map>
#include <mutex>

namespace {

constexpr auto CUDA = c10::DeviceType::CUDA;

thread_local int64_t current = 0;  // stream; 0 is the default one
std::atomic<int64_t> recording{-1}, streams{1}, events{1};
std::mutex lock;
std::map<int64_t, int64_t> touched;  // stream → waits

c10::Stream stream(int64_t number) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(CUDA, 0), number);
}

void touch(const c10::Stream& stream) {
  std::lock_guard<std::mutex> guard(lock);
  touched[stream.id()]++;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return CUDA; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

  c10::Device getDevice() const override { return c10::Device(CUDA, 0); }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}

  c10::Stream getStream(c10::Device) const override { return stream(current); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(streams++); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return stream(streams++); }
  c10::Stream exchangeStream(c10::Stream next) const override {
    auto before = stream(current);
    current = next.id();
    return before;
  }
  bool isStreamCapturing(const c10::Stream& which) const override { return which.id() == recording; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream& which) const override { touch(which); }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream& which) const override { touch(which); }

  void record(void** event, const c10::Stream& which, c10::DeviceIndex, c10::EventFlag) const override {
    if (!*event) *event = reinterpret_cast<void*>(events++);
    touch(which);
  }
  void block(void*, const c10::Stream& which) const override { touch(which); }
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}
};

c10::impl::DeviceGuardImplRegistrar guard(CUDA, new Guard());

}  // namespace

namespace at {  // where torch looks for it by its name, when it is imported

struct ImaginaryHooks final : CUDAHooksInterface {
  explicit ImaginaryHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
};

C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", ImaginaryHooks);

}  // namespace at

extern "C" {

// To go on on this stream, which is or is not being recorded. Forgets what was counted.
void take_stream(int64_t number, bool is_recording) {
  std::lock_guard<std::mutex> guard(lock);
  current = number;
  recording = is_recording ? number : -1;
  touched.clear();
}

// How often other streams were waited for, or waited.
int64_t waits_elsewhere() {
  std::lock_guard<std::mutex> guard(lock);
  int64_t sum = 0;
  for (const auto& [number, count] : touched) sum += number == current ? 0 : count;
  return sum;
}
}
