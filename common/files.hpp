// Output files: written whole or not at all, and known to be writable before the work starts.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>

namespace al {

// Calls `write` on a temporary file beside `path` and renames it into place, so that a reader
// never sees half a file. A device or a pipe ("/dev/null") is written directly: renaming would
// replace it. Throws Error(usage) naming the path and the system's reason.
void write_file(const std::string& path, const std::function<void(std::ostream&)>& write);

// Throws Error(usage) unless write_file(path) would find the place writable. `option` ("--json")
// begins the message. Leaves nothing behind.
void check_writable(const std::string& option, const std::string& path);

// The same for a folder that may have to be made, with its parents. Leaves nothing behind.
void check_folder_writable(const std::string& option, const std::string& path);

}  // namespace al
