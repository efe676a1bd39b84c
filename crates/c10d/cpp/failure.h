// From exceptions to values.
#pragma once

#include <exception>
#include <string>

#include <c10/util/Exception.h>

#include "bridge.h"

struct PfcFailure {
  bool timed_out;
  std::string message;
};

namespace pfc {

inline PfcFailure* failure(const std::string& message) noexcept {
  try {
    const bool timed_out = message.find("imed out") != std::string::npos ||
        message.find("imeout") != std::string::npos;
    return new PfcFailure{timed_out, message};
  } catch (...) {
    // No memory for a message: the caller sees a failure all the same.
    static PfcFailure out_of_memory{false, "out of memory"};
    return &out_of_memory;
  }
}

// Runs `body` and gives back what it threw, without the stack that libtorch appends.
template <typename Body>
PfcFailure* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return failure(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return failure(error.what());
  } catch (...) {
    return failure("an exception of an unknown type");
  }
}

} // namespace pfc
