// What c10d's headers need to know of Gloo's devices, which only libtorch makes.
#pragma once

namespace gloo {
namespace transport {
class Device;
} // namespace transport
} // namespace gloo
