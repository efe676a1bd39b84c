#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <c10/util/Logging.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <ATen/cuda/CUDAContext.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "failure.h"
#include "handles.h"

using c10d::ProcessGroup;
using c10d::ProcessGroupGloo;
using pfc::guarded;
using std::chrono::milliseconds;

namespace {

at::Tensor& tensor_of(void* pointer) {
  return *static_cast<at::Tensor*>(pointer);
}

c10d::ReduceOp reduce_op(int32_t reduce) {
  return reduce == PFC_MAX ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
}

std::vector<uint8_t> bytes(const char* text) {
  return std::vector<uint8_t>(text, text + std::strlen(text));
}

// The caller's values as a store of c10d. Gloo and NCCL set, get, wait and check, and nothing else.
class ValueStore : public c10d::Store {
 public:
  ValueStore(const PfcValues& values, milliseconds timeout) : Store(timeout), values_(values) {}
  ~ValueStore() override {
    values_.drop(values_.context);
  }
  ValueStore(const ValueStore&) = delete;

  c10::intrusive_ptr<Store> clone() override {
    return c10::intrusive_ptr<Store>::unsafe_reclaim_from_nonowning(this);
  }

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    values_.set(values_.context, key.c_str(), value.data(), value.size());
  }

  std::vector<uint8_t> get(const std::string& key) override {
    return awaited(key, timeout_);
  }

  bool check(const std::vector<std::string>& keys) override {
    return std::all_of(keys.begin(), keys.end(), [&](const std::string& key) {
      return values_.has(values_.context, key.c_str()) == 1;
    });
  }

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, timeout_);
  }

  void wait(const std::vector<std::string>& keys, const milliseconds& timeout) override {
    for (const auto& key : keys) {
      awaited(key, timeout);
    }
  }

  // A value stays until the group is gone.
  bool deleteKey(const std::string& /*key*/) override {
    return false;
  }

  int64_t add(const std::string& /*key*/, int64_t /*value*/) override {
    TORCH_CHECK(false, "the store of this process group does not add");
  }

  int64_t getNumKeys() override {
    TORCH_CHECK(false, "the store of this process group does not count its keys");
  }

 private:
  struct Answer {
    std::vector<uint8_t> value;
    std::string failure;
  };

  std::vector<uint8_t> awaited(const std::string& key, milliseconds timeout) {
    Answer answer;
    values_.get(
        values_.context,
        key.c_str(),
        timeout.count(),
        &answer,
        [](void* target, const uint8_t* value, size_t size) {
          static_cast<Answer*>(target)->value.assign(value, value + size);
        },
        [](void* target, const char* message) {
          static_cast<Answer*>(target)->failure = message;
        });
    TORCH_CHECK(answer.failure.empty(), answer.failure);
    return std::move(answer.value);
  }

  PfcValues values_;
};

c10::intrusive_ptr<ProcessGroupGloo::Options> gloo_options(const PfcGroupSpec& spec) {
  auto options = ProcessGroupGloo::Options::create(milliseconds(spec.timeout_ms));
  if (spec.interfaces != nullptr) {
    std::stringstream names(spec.interfaces);
    for (std::string name; std::getline(names, name, ',');) {
      options->devices.push_back(ProcessGroupGloo::createDeviceForInterface(name));
    }
  } else if (spec.hostname != nullptr) {
    options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(spec.hostname));
  } else {
    options->devices.push_back(ProcessGroupGloo::createDefaultDevice());
  }
  options->threads = static_cast<int>(options->devices.size()) * 2;
  return options;
}

void add_nccl(
    ProcessGroup& group,
    const c10::intrusive_ptr<c10d::Store>& store,
    const PfcGroupSpec& spec) {
#ifdef USE_C10D_NCCL
  // After a timeout the operations are ended and fail; by default the whole process would be, from a
  // thread of libtorch, before it can say which rank was late. What the user has set stays.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", /*overwrite=*/0);
  setenv("TORCH_NCCL_LOG_CPP_STACK_ON_UNCLEAN_SHUTDOWN", "0", /*overwrite=*/0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = milliseconds(spec.timeout_ms);
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::make_intrusive<c10d::PrefixStore>("nccl", store), spec.rank, spec.world, options);
  nccl->setSequenceNumberForGroup();
  group.setBackend(c10::DeviceType::CUDA, ProcessGroup::BackendType::NCCL, nccl);
#else
  (void)group;
  (void)store;
  (void)spec;
  TORCH_CHECK(false, "this program was built without NCCL");
#endif
}

// Where an operation on `tensor` goes.
c10::intrusive_ptr<c10d::Backend> backend_of(PfcGroup* group, const at::Tensor& tensor) {
  return group->group->getBackend(tensor.device().type());
}

} // namespace

int32_t pfc_failure_timed_out(const PfcFailure* failure) {
  return failure->timed_out ? 1 : 0;
}

const char* pfc_failure_message(const PfcFailure* failure) {
  return failure->message.c_str();
}

void pfc_failure_free(PfcFailure* failure) {
  if (failure->message != "out of memory") {
    delete failure;
  }
}

void pfc_silence() {
  FLAGS_caffe2_log_level = 3; // GLOG_FATAL
}

PfcFailure* pfc_store_open(const PfcStoreSpec* spec, PfcStore** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = spec->port;
    options.waitWorkers = false;
    options.timeout = milliseconds(spec->timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(spec->host, options);
    *out = new PfcStore{c10::make_intrusive<c10d::PrefixStore>(spec->prefix, store)};
  });
}

PfcFailure* pfc_store_set(PfcStore* store, const char* key, const char* value) {
  return guarded([&] { store->store->set(key, bytes(value)); });
}

PfcFailure* pfc_store_get(PfcStore* store, const char* key, char** out) {
  return guarded([&] {
    const auto value = store->store->get(std::string(key));
    *out = new char[value.size() + 1]();
    std::copy(value.begin(), value.end(), *out);
  });
}

void pfc_store_free(PfcStore* store) {
  delete store;
}

void pfc_text_free(char* text) {
  delete[] text;
}

PfcFailure* pfc_group_open(const PfcValues* values, const PfcGroupSpec* spec, PfcGroup** out) {
  return guarded([&] {
    auto store = c10::make_intrusive<ValueStore>(*values, milliseconds(spec->timeout_ms));
    auto gloo = c10::make_intrusive<ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store),
        spec->rank,
        spec->world,
        gloo_options(*spec));
    gloo->setSequenceNumberForGroup();
    auto group = c10::make_intrusive<ProcessGroup>(store, spec->rank, spec->world);
    group->setDefaultBackend(ProcessGroup::BackendType::GLOO);
    group->setBackend(c10::DeviceType::CPU, ProcessGroup::BackendType::GLOO, gloo);
    if (spec->with_nccl != 0) {
      add_nccl(*group, store, *spec);
    }
    *out = new PfcGroup{group};
  });
}

PfcFailure* pfc_group_abort(PfcGroup* group) {
  return guarded([&] { group->group->abort(); });
}

void pfc_group_free(PfcGroup* group) {
  // A destructor that throws would end the process without a message of ours.
  const auto free = [&] {
    const std::unique_ptr<PfcGroup> owned(group);
    owned->group->shutdown();
  };
  if (PfcFailure* failure = guarded(free)) {
    pfc_failure_free(failure);
  }
}

PfcFailure* pfc_all_reduce(PfcGroup* group, void* tensor, int32_t reduce, PfcWork** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduce_op(reduce);
    *out = new PfcWork{
        backend_of(group, tensors[0])->allreduce(tensors, options), tensors[0].is_cuda()};
  });
}

PfcFailure* pfc_all_gather(PfcGroup* group, void* output, void* input, PfcWork** out) {
  return guarded([&] {
    at::Tensor into = tensor_of(output);
    at::Tensor from = tensor_of(input);
    *out = new PfcWork{backend_of(group, from)->_allgather_base(into, from), from.is_cuda()};
  });
}

PfcFailure* pfc_reduce_scatter(PfcGroup* group, void* output, void* input, PfcWork** out) {
  return guarded([&] {
    at::Tensor into = tensor_of(output);
    at::Tensor from = tensor_of(input);
    *out = new PfcWork{backend_of(group, from)->_reduce_scatter_base(into, from), from.is_cuda()};
  });
}

PfcFailure* pfc_broadcast(PfcGroup* group, void* tensor, int32_t root, PfcWork** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = new PfcWork{
        backend_of(group, tensors[0])->broadcast(tensors, options), tensors[0].is_cuda()};
  });
}

PfcFailure* pfc_barrier(PfcGroup* group, PfcWork** out) {
  return guarded([&] {
    *out = new PfcWork{group->group->getBackend(c10::DeviceType::CPU)->barrier(), false};
  });
}

PfcFailure* pfc_work_wait(PfcWork* work, int64_t timeout_ms, int32_t* state) {
  *state = PFC_DONE;
  return guarded([&] {
    if (work->on_device) {
      // A wait with a timeout would end NCCL's communicators once that is over.
      if (!work->work->isCompleted()) {
        *state = PFC_PENDING;
        return;
      }
      if (const auto exception = work->work->exception()) {
        std::rethrow_exception(exception);
      }
      work->work->synchronize();
      return;
    }
    try {
      work->work->wait(milliseconds(timeout_ms));
    } catch (...) {
      // Either the operation failed, or only this wait ran out of time.
      if (work->work->isCompleted()) {
        throw;
      }
      *state = PFC_PENDING;
    }
  });
}

PfcFailure* pfc_work_order(PfcWork* work) {
  return guarded([&] {
    if (work->on_device) {
      work->work->synchronize();
    } else {
      work->work->wait();
    }
  });
}

void pfc_work_free(PfcWork* work) {
  delete work;
}

int32_t pfc_nccl_available() {
#ifdef USE_C10D_NCCL
  return at::hasCUDA() ? 1 : 0;
#else
  return 0;
#endif
}

PfcFailure* pfc_device_id(int32_t index, char** out) {
  return guarded([&] {
#ifdef USE_C10D_NCCL
    const auto* uuid = at::cuda::getDeviceProperties(index)->uuid.bytes;
    std::string text = "GPU-";
    for (size_t i = 0; i < 16; i++) {
      static const char* digits = "0123456789abcdef";
      const auto byte = static_cast<uint8_t>(uuid[i]);
      text += {digits[byte >> 4], digits[byte & 15]};
    }
    *out = new char[text.size() + 1]();
    std::copy(text.begin(), text.end(), *out);
#else
    (void)index;
    (void)out;
    TORCH_CHECK(false, "this program was built without NCCL");
#endif
  });
}
