#include "09_cute/tiles.hpp"

namespace al {

std::span<const TilePoint> tiles_09_cute() {
  static const std::vector<TilePoint> points = [] {
    std::vector<TilePoint> made;
    add_tiles<32>(made);
    add_tiles<64>(made);
    add_tiles<128>(made);
    add_tiles<256>(made);
    return made;
  }();
  return points;
}

}  // namespace al
