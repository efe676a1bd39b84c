// What c10d's headers need to know of Gloo's contexts, which only libtorch makes.
#pragma once

#include <chrono>

namespace gloo {
namespace transport {
class UnboundBuffer;
} // namespace transport

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
