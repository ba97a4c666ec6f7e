/* The part of FAISS's official C API that index/ann.c uses, for distributions that ship its headers
 * without its symbols (Debian does), and the interrupt of faiss_c.h, which the C API lacks. Where
 * CMake finds a libfaiss_c, that is linked and the official part is left out here.
 *
 * The only C++ of index/. Every function that can throw catches: no exception crosses into C. Codes
 * and the thread-local last error are those of the official implementation. */
#include "index/faiss_c.h"

#include <faiss/Index.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_factory.h>

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>

#include <cstdio>
#include <exception>
#include <mutex>
#include <new>

/* ---- the interrupt ---- */

namespace
{
thread_local bool (*interrupt_is_wanted)(void *self) = nullptr;
thread_local void *interrupt_self = nullptr;

struct Interrupt : faiss::InterruptCallback {
    bool want_interrupt() override
    {
        return interrupt_is_wanted != nullptr && interrupt_is_wanted(interrupt_self);
    }
};
} // namespace

extern "C" void lore_faiss_interrupt(bool (*is_wanted)(void *self), void *self)
{
    static std::once_flag once;
    interrupt_is_wanted = is_wanted;
    interrupt_self = self;
    try {
        std::call_once(once, [] { faiss::InterruptCallback::instance.reset(new Interrupt); });
    } catch (...) {
        return; /* no memory: the computation then runs to its end */
    }
}

#ifndef LORE_HAVE_FAISS_C

/* ---- the official part ---- */

namespace
{
/* A fixed buffer, so that keeping the words of a bad_alloc allocates nothing. */
thread_local char last_error[512];

int keep(int code, const char *words) noexcept
{
    std::snprintf(last_error, sizeof last_error, "%s", words);
    return code;
}

template <typename Body> int guarded(Body body) noexcept
{
    try {
        body();
        return OK;
    } catch (const faiss::FaissException &e) {
        return keep(FAISS_EXCEPT, e.what());
    } catch (const std::exception &e) {
        return keep(STD_EXCEPT, e.what());
    } catch (...) {
        return keep(UNKNOWN_EXCEPT, "unknown exception");
    }
}

faiss::Index *real(FaissIndex *index)
{
    return reinterpret_cast<faiss::Index *>(index);
}

const faiss::Index *real(const FaissIndex *index)
{
    return reinterpret_cast<const faiss::Index *>(index);
}
} // namespace

extern "C" {

const char *faiss_get_last_error()
{
    return last_error[0] == '\0' ? nullptr : last_error;
}

int faiss_index_factory(FaissIndex **p_index, int d, const char *description,
                        FaissMetricType metric)
{
    return guarded([&] {
        *p_index = reinterpret_cast<FaissIndex *>(
            faiss::index_factory(d, description, static_cast<faiss::MetricType>(metric)));
    });
}

void faiss_Index_free(FaissIndex *obj)
{
    delete real(obj);
}

int faiss_Index_train(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { real(index)->train(n, x); });
}

int faiss_Index_assign(FaissIndex *index, idx_t n, const float *x, idx_t *labels, idx_t k)
{
    return guarded([&] { real(index)->assign(n, x, labels, k); });
}

int faiss_Index_reconstruct_n(const FaissIndex *index, idx_t i0, idx_t ni, float *recons)
{
    return guarded([&] { real(index)->reconstruct_n(i0, ni, recons); });
}

FaissIndexIVF *faiss_IndexIVF_cast(FaissIndex *index)
{
    return reinterpret_cast<FaissIndexIVF *>(dynamic_cast<faiss::IndexIVF *>(real(index)));
}

FaissIndex *faiss_IndexIVF_quantizer(const FaissIndexIVF *index)
{
    return reinterpret_cast<FaissIndex *>(
        reinterpret_cast<const faiss::IndexIVF *>(index)->quantizer);
}
}

#endif
