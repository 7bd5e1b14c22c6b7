#include "blocks.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "signals.h"
#include "worker.h"

namespace emulated {
namespace {

// Workers share the blocks of a launch.
class Pool {
  public:
    Pool() {
        const char* wanted = std::getenv("EMULATED_GPU_THREADS");
        unsigned threads =
            wanted ? std::strtoul(wanted, nullptr, 10) : std::min(2u, std::thread::hardware_concurrency());
        for (unsigned i = 1; i < threads; ++i) std::thread([this] { help(); }).detach();
        helpers = threads > 1 ? threads - 1 : 0;
        handle_signals();
    }

    void run(const Launch& what) {
        std::lock_guard<std::mutex> one_launch_at_a_time(launching);
        std::atomic<unsigned long long> next{0};
        bool alone = helpers == 0 || 1ULL * what.grid.x * what.grid.y * what.grid.z == 1;
        if (!alone) {
            std::lock_guard<std::mutex> lock(mutex);
            job = &what;
            blocks = &next;
            working = helpers;
            ++generation;
            begin.notify_all();
        }
        need_signal_stack();
        own.run_blocks(what, next);
        if (alone) return;
        std::unique_lock<std::mutex> lock(mutex);
        end.wait(lock, [this] { return working == 0; });
    }

  private:
    void help() {
        Worker* worker = new Worker;
        need_signal_stack();
        unsigned seen = 0;
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            begin.wait(lock, [&] { return generation != seen; });
            seen = generation;
            lock.unlock();
            worker->run_blocks(*job, *blocks);
            lock.lock();
            if (--working == 0) end.notify_one();
        }
    }

    std::mutex launching, mutex;
    std::condition_variable begin, end;
    const Launch* job;
    std::atomic<unsigned long long>* blocks;
    unsigned helpers, working = 0, generation = 0;
    Worker own;
};

}  // namespace

void run(const Launch& launch) {
    // Never destroyed: its threads run until the process ends.
    static Pool* pool = new Pool;
    pool->run(launch);
}

}  // namespace emulated
