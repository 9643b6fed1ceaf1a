// Which memory belongs to tensors: while the emulator is in charge, torch's CPU allocator is ours.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace electra::emulation {

bool in_tensor(uintptr_t p, size_t bytes);
// The tensor that p lies least far from (within 4 KiB): its size, and where p is in it.
bool nearest_tensor(uintptr_t p, size_t& size, ptrdiff_t& offset);

}  // namespace electra::emulation
