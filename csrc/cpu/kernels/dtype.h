// The element types a native kernel may be asked for, as a tag that crosses the boundary between the torch side and the kernels.
#pragma once

namespace electra {

enum class DType { f32, bf16, f64 };

}  // namespace electra
