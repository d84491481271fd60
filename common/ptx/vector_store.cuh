// st.global.v2/.v4: a store of 8 or 16 bytes that stays one. The compiler takes some assignments of
// a uint4 apart, into four stores of 4 bytes.
#pragma once

#include "common/device.cuh"

namespace al {

// What the caches are told: nothing, or (st.global.cs) that nobody will want these bytes soon.
enum class Store { plain, streaming };

template <Store STORE>
__device__ __forceinline__ void store_vector(void* address, uint2 x) {
#ifdef AL_EMULATOR
  *static_cast<uint2*>(address) = x;
#else
  if constexpr (STORE == Store::streaming) {
    asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(x.x), "r"(x.y));
  } else {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(x.x), "r"(x.y));
  }
#endif
}

template <Store STORE>
__device__ __forceinline__ void store_vector(void* address, uint4 x) {
#ifdef AL_EMULATOR
  *static_cast<uint4*>(address) = x;
#else
  if constexpr (STORE == Store::streaming) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(x.x), "r"(x.y),
                 "r"(x.z), "r"(x.w));
  } else {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(x.x), "r"(x.y),
                 "r"(x.z), "r"(x.w));
  }
#endif
}

}  // namespace al
