#include "common/files.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "common/error.hpp"

namespace fs = std::filesystem;

namespace al {
namespace {

// True for what must be written in place: /dev/null, /dev/stdout, a named pipe.
bool is_device_or_pipe(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  return fs::is_character_file(status) || fs::is_fifo(status);
}

// Where the bytes go in the end: a link is followed, so that it stays a link.
fs::path resolved(const std::string& path) {
  std::error_code ignored;
  const fs::path whole = fs::absolute(path);
  const fs::path real = fs::weakly_canonical(whole, ignored);
  return real.empty() ? whole : real;
}

// Two processes that write the same path must not share a temporary file.
fs::path temporary_beside(const fs::path& path) {
  return path.string() + ".part" + std::to_string(getpid());
}

std::string system_reason() { return errno ? std::strerror(errno) : "unknown reason"; }

// Creates and removes a file; the empty string, or why that failed.
std::string try_create(const fs::path& path) {
  errno = 0;
  const bool created = std::ofstream(path).is_open();
  const std::string reason = created ? "" : system_reason();
  std::error_code ignored;
  if (created) fs::remove(path, ignored);
  return reason;
}

}  // namespace

void write_file(const std::string& path, const std::function<void(std::ostream&)>& write) {
  const bool direct = is_device_or_pipe(path);
  const fs::path target = direct ? fs::path(path) : resolved(path);
  const fs::path written = direct ? target : temporary_beside(target);
  errno = 0;
  std::ofstream file(written, std::ios::binary);
  if (file) {
    write(file);
    file.close();
  }
  std::error_code failure;
  if (file && !direct) fs::rename(written, target, failure);
  if (file && !failure) return;

  const std::string reason = failure ? failure.message() : system_reason();
  if (!direct) fs::remove(written, failure);
  throw usage_error("Cannot write " + path + ": " + reason + ".");
}

void check_writable(const std::string& option, const std::string& path) {
  if (is_device_or_pipe(path)) return;
  const std::string asked = option + " " + path;
  const fs::path target = resolved(path);
  std::error_code ignored;
  if (fs::is_directory(target, ignored)) {
    throw usage_error(asked + " is a folder; name a file in it.");
  }
  if (!fs::is_directory(target.parent_path(), ignored)) {
    throw usage_error(asked + " cannot be written: there is no folder " +
                      target.parent_path().string() +
                      ", or you may not look into it. Create it or name another.");
  }
  const std::string reason = try_create(temporary_beside(target));
  if (!reason.empty()) {
    throw usage_error(asked + " cannot be written: " + reason + ". Name a place you may write to.");
  }
}

void check_folder_writable(const std::string& option, const std::string& path) {
  const std::string cannot = option + " " + path + " cannot be used: ";
  std::vector<fs::path> missing;  // innermost first
  fs::path existing = resolved(path);
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) {
    missing.push_back(existing);
    existing = existing.parent_path();
  }
  if (!fs::is_directory(existing, ignored)) {
    throw usage_error(cannot + existing.string() + " is not a folder. Name one, or a new one.");
  }
  std::error_code failure;
  fs::create_directories(path, failure);
  std::string reason =
      failure ? failure.message() : try_create(temporary_beside(resolved(path) / "o"));
  for (const fs::path& folder : missing) fs::remove(folder, ignored);
  if (!reason.empty()) {
    throw usage_error(cannot + reason + ". Name a folder you may write to.");
  }
}

}  // namespace al
