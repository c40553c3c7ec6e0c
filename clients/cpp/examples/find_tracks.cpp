// Read events as CSV files of hits, ask servers for their tracks, print a label for each hit.
//
//     find_tracks [--servers host:port,host:port] [--timeout S] [--attempt-timeout S]
//                 [--attempts N] [--compact MM] [--min-quality Q] [--parameters TRACKS.csv]
//                 [--request-id NAME] FILE.csv ...
//
// With --parameters what is fitted of each track is written to a file, too. // A file has a header; x, y, z (mm) are needed, hit_id and other columns may be there.
#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "trackserve/client.h"

namespace {

struct Event {
  trackserve::Hits hits;
  std::vector<std::string> ids;
};

std::vector<std::string> split(std::string line) {
  line.erase(std::remove(line.begin(), line.end(), '\r'), line.end());
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    parts.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

float number(const std::string& text, const std::string& where) {
  float value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw trackserve::InputError(where + " is '" + text + "'; expected a number");
  }
  return value;
}

Event read_event(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) {
    throw trackserve::InputError(path + " is missing or empty; expected a CSV file with x, y, z");
  }
  const std::vector<std::string> names = split(line);
  const auto id = std::find(names.begin(), names.end(), "hit_id") - names.begin();
  Event event;
  for (const std::string& name : names) {
    if (name != "hit_id") event.hits.columns.push_back(name);
  }
  for (std::size_t row = 1; std::getline(file, line); ++row) {
    if (line.empty()) continue;
    const std::vector<std::string> cells = split(line);
    const std::string where = path + " row " + std::to_string(row);
    if (cells.size() != names.size()) {
      throw trackserve::InputError(where + " has " + std::to_string(cells.size()) +
                                   " columns; expected " + std::to_string(names.size()));
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (static_cast<std::ptrdiff_t>(i) == id) {
        event.ids.push_back(cells[i]);
      } else {
        event.hits.values.push_back(number(cells[i], where + ": " + names[i]));
      }
    }
    if (static_cast<std::size_t>(id) == names.size()) event.ids.push_back(std::to_string(row - 1));
  }
  return event;
}

struct Arguments {
  std::string servers = "localhost:8001";
  std::string request_id;
  trackserve::Options options;
  trackserve::Wanted wanted;
  std::string parameters;
  std::vector<std::string> files;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (!name.starts_with("--")) {
      arguments.files.push_back(name);
      continue;
    }
    if (++i == argc) throw trackserve::InputError(name + " needs a value");
    const std::string value = argv[i];
    if (name == "--servers") {
      arguments.servers = value;
    } else if (name == "--timeout") {
      arguments.options.timeout = number(value, name);
    } else if (name == "--attempt-timeout") {
      arguments.options.attempt_timeout = number(value, name);
    } else if (name == "--attempts") {
      arguments.options.attempts = static_cast<int>(number(value, name));
    } else if (name == "--compact") {
      arguments.options.compact = number(value, name);
    } else if (name == "--min-quality") {
      arguments.wanted.min_quality = number(value, name);
    } else if (name == "--parameters") {
      arguments.parameters = value;
      arguments.wanted.parameters = true;
    } else if (name == "--request-id") {
      arguments.request_id = value;
    } else {
      throw trackserve::InputError(name +
                                   " is no option; there are --servers, --timeout, "
                                   "--attempt-timeout, --attempts, --compact, --min-quality, "
                                   "--parameters and --request-id");
    }
  }
  if (arguments.files.empty()) throw trackserve::InputError("no file; expected at least one CSV");
  return arguments;
}

void write(const std::string& event, std::size_t number, const trackserve::TrackParameters& track,
           std::ostream& out) {
  out << event << ',' << number;
  for (const float value : {track.pt, track.eta, track.phi, track.d0, track.z0, track.charge,
                            track.chi2, track.hits, track.quality}) {
    out << ',' << value;
  }
  out << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    trackserve::Client client(arguments.servers, arguments.options);
    std::ofstream fitted;
    if (arguments.wanted.parameters) {
      fitted.open(arguments.parameters);
      fitted << "event,track_id,pt,eta,phi,d0,z0,charge,chi2,hits,quality\n";
    }
    std::cout << "hit_id,track_id\n";
    for (const std::string& path : arguments.files) {
      const Event event = read_event(path);
      const trackserve::Tracks tracks =
          client.find_tracks(event.hits, arguments.request_id, arguments.wanted);
      for (std::size_t hit = 0; hit < tracks.labels.size(); ++hit) {
        std::cout << event.ids[hit] << ',' << tracks.labels[hit] << '\n';
      }
      for (std::size_t track = 0; track < tracks.parameters.size(); ++track) {
        write(path, track, tracks.parameters[track], fitted);
      }
      std::cerr << path << ": " << tracks.labels.size() << " hits, " << tracks.size()
                << " tracks (request " << tracks.request_id << ")\n";
    }
  } catch (const trackserve::Error& error) {
    std::cerr << "find_tracks: " << error.what();
    if (!error.request_id.empty()) std::cerr << " (request " << error.request_id << ")";
    std::cerr << '\n';
    // As Python's command line: 2 for what the user can mend, 1 for what the server did.
    return dynamic_cast<const trackserve::ServerError*>(&error) != nullptr ? 1 : 2;
  }
}
