// What an event may need, as pipeline/budget.py: beyond it, work ends at once with an OverBudget.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace trackserve {

struct Budget {
    int64_t edges = std::numeric_limits<int64_t>::max();     // that the neighbour search leaves
    int64_t triplets = std::numeric_limits<int64_t>::max();  // pairs of edges that meet, before any cut
    double seconds = std::numeric_limits<double>::infinity();
};

enum class Bound { EDGES, TRIPLETS, SECONDS };

// Thrown for an event that exceeds a bound.
struct OverBudget {
    Bound bound;
};

// The budgets of events whose hits lie one behind the other.
struct Budgets {
    const Budget* each;     // [events]
    const int64_t* begins;  // [events + 1] where the hits of each event begin
    int64_t events;
};

// Until it goes, what the thread that made it does in chunks (parallel.h) ends after this time.
class Deadline {
  public:
    explicit Deadline(double seconds);
    ~Deadline();
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;

    using Time = std::chrono::steady_clock::time_point;
    static Time own();  // the calling thread's; the end of time if it has none
    static void check(Time end) {
        if (std::chrono::steady_clock::now() > end) throw OverBudget{Bound::SECONDS};
    }

  private:
    Time before_;
};

}  // namespace trackserve
