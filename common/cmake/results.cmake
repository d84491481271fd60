# make results [STAGE=01_naive_qk]: `make bench`, then the pictures, and the tables of all pages, the comparison of GPUs
# (docs/results/README.md) among them; and whether what was written is well formed.
include(${CMAKE_CURRENT_LIST_DIR}/bench.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/plots.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/docs.cmake)
al_run(python3 docs/results/validate.py)
message(STATUS "Written: ${results}, docs/plots and docs/results/README.md; see CONTRIBUTING.md for what to do with them")
