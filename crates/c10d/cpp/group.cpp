#include <cstring>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
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

PfcFailure* pfc_store_open(const PfcStoreSpec* spec, PfcStore** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = spec->port;
    options.isServer = spec->is_server != 0;
    options.numWorkers = spec->world;
    // The group's own rendezvous waits, and says which rank is missing.
    options.waitWorkers = false;
    options.timeout = milliseconds(spec->timeout_ms);
    if (spec->listen_fd >= 0) {
      options.masterListenFd = spec->listen_fd;
    }
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

PfcFailure* pfc_group_open(PfcStore* store, const PfcGroupSpec* spec, PfcGroup** out) {
  return guarded([&] {
    auto gloo = c10::make_intrusive<ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store->store),
        spec->rank,
        spec->world,
        gloo_options(*spec));
    gloo->setSequenceNumberForGroup();
    auto group = c10::make_intrusive<ProcessGroup>(store->store, spec->rank, spec->world);
    group->setDefaultBackend(ProcessGroup::BackendType::GLOO);
    group->setBackend(c10::DeviceType::CPU, ProcessGroup::BackendType::GLOO, gloo);
    if (spec->with_nccl != 0) {
      add_nccl(*group, store->store, *spec);
    }
    *out = new PfcGroup{group};
  });
}

PfcFailure* pfc_group_abort(PfcGroup* group) {
  return guarded([&] { group->group->abort(); });
}

void pfc_group_free(PfcGroup* group) {
  // A destructor that throws would end the process without a message of ours.
  if (PfcFailure* failure = guarded([&] { delete group; })) {
    pfc_failure_free(failure);
  }
}

PfcFailure* pfc_all_reduce(PfcGroup* group, void* tensor, int32_t reduce, PfcWork** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduce_op(reduce);
    *out = new PfcWork{backend_of(group, tensors[0])->allreduce(tensors, options)};
  });
}

PfcFailure* pfc_all_gather(PfcGroup* group, void* output, void* input, PfcWork** out) {
  return guarded([&] {
    at::Tensor into = tensor_of(output);
    at::Tensor from = tensor_of(input);
    *out = new PfcWork{backend_of(group, from)->_allgather_base(into, from)};
  });
}

PfcFailure* pfc_reduce_scatter(PfcGroup* group, void* output, void* input, PfcWork** out) {
  return guarded([&] {
    at::Tensor into = tensor_of(output);
    at::Tensor from = tensor_of(input);
    *out = new PfcWork{backend_of(group, from)->_reduce_scatter_base(into, from)};
  });
}

PfcFailure* pfc_broadcast(PfcGroup* group, void* tensor, int32_t root, PfcWork** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = new PfcWork{backend_of(group, tensors[0])->broadcast(tensors, options)};
  });
}

PfcFailure* pfc_barrier(PfcGroup* group, PfcWork** out) {
  return guarded([&] {
    *out = new PfcWork{group->group->getBackend(c10::DeviceType::CPU)->barrier()};
  });
}

PfcFailure* pfc_work_wait(PfcWork* work, int64_t timeout_ms, int32_t* state) {
  *state = PFC_DONE;
  return guarded([&] {
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
