# Every version the build asks for, in one place. Sizes are downloads, as setup says them aloud.

set(AL_CMAKE_MINIMUM 3.25)
set(AL_GXX_MINIMUM 12)      # C++20 as the house uses it
set(AL_TOOLKIT_MINIMUM 12.8)

# Host libraries: Debian 12's own versions do (host_libraries.txt). Elsewhere these are fetched.
set(AL_FETCH_BOOST 1.84.0)
set(AL_FETCH_DOCTEST v2.4.12)
set(AL_FETCH_CLI11 v2.4.2)
set(AL_FETCH_FMT 9.1.0)
set(AL_FETCH_JSON v3.12.0)

# From PyPI, into build/venv, when the machine has no CUDA toolkit.
set(AL_PYPI_CUDA_HEADERS
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-crt==13.0.88)
set(AL_PYPI_CUDA_HEADERS_SIZE "5.5 MB")
set(AL_PYPI_NVCC nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88)
set(AL_PYPI_NVCC_SIZE "99 MB")

# CUTLASS and CuTe, headers only (chapter 09).
set(AL_PYPI_CUTLASS nvidia-cutlass==4.2.0.0)
set(AL_PYPI_CUTLASS_SIZE "6.4 MB")

# The first cuobjdump on PyPI is 13.2's; it reads what a 13.0 compiler writes.
set(AL_PYPI_CUOBJDUMP nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.2.86)
set(AL_PYPI_CUOBJDUMP_SIZE "4.8 MB")

# cuDNN, a yardstick. The C++ front end is headers only; the library is fetched where there is a GPU
# and no cuDNN.
set(AL_PYPI_CUDNN_FRONTEND nvidia-cudnn-frontend==1.32.0)
set(AL_PYPI_CUDNN_FRONTEND_SIZE "12 MB")
set(AL_PYPI_CUDNN nvidia-cudnn-cu13==9.19.0.56)
set(AL_PYPI_CUDNN_SIZE "366 MB")

# For pictures of results, with what it depends on.
set(AL_PYPI_MATPLOTLIB matplotlib==3.11.2)
set(AL_PYPI_MATPLOTLIB_SIZE "45 MB")

# For the site (make site), with what it depends on, and to look at it in a browser.
set(AL_PYPI_SITE mkdocs-material==9.8.1 latex2mathml==3.81.1)
set(AL_PYPI_SITE_SIZE "27 MB")
set(AL_PYPI_PLAYWRIGHT playwright==1.65.2)
set(AL_PYPI_PLAYWRIGHT_SIZE "52 MB")

# Another version would format the tree another way.
set(AL_CLANG_FORMAT_MAJOR 14)
set(AL_PYPI_CLANG_FORMAT clang-format==14.0.6)
set(AL_PYPI_CLANG_FORMAT_SIZE "1.1 MB")
