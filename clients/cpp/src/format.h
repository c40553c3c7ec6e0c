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

inline std::string shortest(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3g", value);
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
