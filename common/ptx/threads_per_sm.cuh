// How many threads an SM holds, for __launch_bounds__: asking for more is a compiler's error.
#pragma once

namespace al {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
inline constexpr int kThreadsPerSM = 1024;
#elif defined(__CUDA_ARCH__) && \
    (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
inline constexpr int kThreadsPerSM = 1536;
#else
inline constexpr int kThreadsPerSM = 2048;
#endif

}  // namespace al
