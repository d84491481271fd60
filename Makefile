# Every rule is one CMake call; what it does is in common/cmake/.

STAGES := $(wildcard [0-9][0-9]_*)
cmake := @cmake -DARGS="$(ARGS)"

.PHONY: help ladder test bench sweep docs format clean $(STAGES)

help:
	@cmake -E cat common/cmake/help.txt

ladder test bench docs format:
	$(cmake) -P common/cmake/$@.cmake

$(STAGES):
	$(cmake) -DSTAGE=$@ -P common/cmake/chapter.cmake

sweep:
	$(cmake) -DSTAGE=$(STAGE) -P common/cmake/sweep.cmake

clean:
	@cmake -E rm -rf build/cuda build/emulator build/emulator-asan
