// Numbers and lists as they stand in messages.
#pragma once

#include <cstdio>
#include <string>

namespace trackserve {

inline std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// A time limit: two digits, for what is left of a longer one is no round number.
inline std::string seconds(double value) {
  char text[64];
  std::snprintf(text, sizeof text, value < 10 ? "%.2g" : "%.0f", value);
  return text;
}

// The parts of a list with commas between them.
template <typename List>
std::string joined(const List& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

}  // namespace trackserve
