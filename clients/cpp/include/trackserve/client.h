// Ask trackserve's servers for tracks.
//
//     trackserve::Client client("one:8001,two:8001");
//     trackserve::Tracks tracks = client.find_tracks(positions);  // x, y, z, x, y, z, ... in mm
//
// Symbols: N hits of an event, C columns of a hit, F features of a hit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trackserve/errors.h"

namespace trackserve {

// How long and how often to try an event. An attempt that fails or is refused is repeated: a server
// keeps nothing, so a repeated request does no harm.
struct Options {
  // For an event with all its attempts, s.
  double timeout = 60.0;
  // For one attempt, s; without it an attempt may take the whole timeout.
  std::optional<double> attempt_timeout;
  // The most attempts for each server. With the rests between them 20 are long enough for a server
  // to be restarted.
  int attempts = 20;
  // What to round positions to, mm (0.01 changes no physics): hits and labels then take half the
  // bytes, at servers that take that; others get the hits as they are.
  std::optional<double> compact;
};

// What a served model says about itself; see docs/wire.md.
struct Description {
  std::vector<std::string> columns;      // of a hit, x, y, z (mm) first
  std::map<std::string, double> absent;  // the value to send for a column that the hits lack
  std::vector<std::string> features;
  std::vector<double> scales;
  std::int64_t max_hits = 0;
  std::int64_t max_queue = 0;
  std::string bundle;
  std::string detector;
  std::string digest;
  std::vector<std::string> track_columns;  // of what is fitted; none where the bundle has no fit
  std::optional<double> min_quality;       // the bundle's cut; none where it knows no quality
  std::int64_t compact = 0;                // the version of compact hits that it takes; 0 for none
};

// The hits of one event: rows of float32 [N, C], and the names of their columns.
struct Hits {
  std::vector<std::string> columns;
  std::vector<float> values;
};

// What is wanted of an event beside its labels.
struct Wanted {
  // What is fitted of each track.
  bool parameters = false;
  // Drop tracks of a quality below this, in [0, 1); the bundle's own cut if there is none.
  std::optional<double> min_quality;
};

// What is fitted of a track, at its closest approach to the beam line: GeV, rad, mm, e; chi2 is per
// degree of freedom, quality in [0, 1] (docs/fit.md). A track that cannot be fitted has nan and
// quality 0.
struct TrackParameters {
  float pt, eta, phi, d0, z0, charge, chi2, hits, quality;
  float pt_error, eta_error, phi_error, d0_error, z0_error;
};

// The answer: for each hit the number of its track from 0, or -1 for a hit on no track.
struct Tracks {
  std::vector<std::int64_t> labels;
  std::vector<TrackParameters> parameters;  // of track t in row t, where they were wanted
  std::string request_id;

  // The number of tracks.
  std::size_t size() const;
};

// Connections to one or several servers. All members may be called from several threads at the same
// time; each call blocks until its event is answered.
//
// A server that fails rests, 0.1 s at first and up to 5 s, with jitter, and at least as long as a
// refusal asks for (up to 5 s); meanwhile the next server is asked. Where all of them rest, a call
// waits for the first that has rested. Errors: UnreachableError for servers that cannot be reached,
// RefusedError for ones that are full, another ServerError for one that fails or lacks the model,
// InputError for hits that cannot be used, and for what the served bundle cannot give.
class Client {
 public:
  // `servers` is host:port or grpc://host:port, several of them separated by commas.
  explicit Client(std::string_view servers, Options options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // What the first server that answered says about its model; asked once.
  const Description& description();

  // Find the tracks of an event given by positions [N, 3]: x, y, z in mm. `request_id` names the
  // request in the server's log and in errors; one is drawn if it is empty.
  Tracks find_tracks(std::span<const float> positions, std::string request_id = {},
                     const Wanted& wanted = {});

  // Find the tracks of hits with named columns. Those that the model does not take are left out;
  // those that it takes and the hits lack are filled with the bundle's values for that.
  Tracks find_tracks(const Hits& hits, std::string request_id = {}, const Wanted& wanted = {});

  // Find the tracks of hits given by their scaled features [N, F].
  Tracks find_tracks_from_features(std::span<const float> features, std::string request_id = {});

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace trackserve
