// sm_90's asynchronous machinery, as the wrappers in common/ptx call it here.
#pragma once

#include <cstdint>

#include "common/emulator/cuda.hpp"
#include "common/tensor_map.hpp"

namespace al::emulator {

// mbarrier.cpp. `barrier`: 8 bytes in shared memory.
void mbarrier_init(std::uint64_t* barrier, std::uint32_t arrivals, Where where);
void mbarrier_arrive(std::uint64_t* barrier, std::uint32_t announced_bytes, bool arrives,
                     Where where);
void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity, Where where);
bool mbarrier_try_wait(std::uint64_t* barrier, std::uint32_t parity, Where where);
void fence_proxy_async();    // what this thread wrote, the hardware may read
void fence_mbarrier_init();  // what this thread initialised, the hardware may count on

// bulk_copy.cpp: runs of bytes, and boxes of tensors.
void bulk_load(void* to_shared, const void* from_global, std::uint32_t bytes,
               std::uint64_t* barrier, Where where);
void bulk_store(void* to_global, const void* from_shared, std::uint32_t bytes, Where where);
void tma_load(void* to_shared, const TensorMap& map, std::uint64_t* barrier, const int* x, int rank,
              Where where);
void tma_store(const TensorMap& map, const void* from_shared, const int* x, int rank, Where where);
void bulk_prefetch(const void* from_global, std::uint32_t bytes, Where where);
void bulk_store_commit();
void bulk_store_wait(std::size_t newer_groups, Where where);

// named_barrier.cpp
void named_barrier(int id, int threads, bool waits, Where where);
void set_max_registers(int registers, bool increase, Where where);

}  // namespace al::emulator
