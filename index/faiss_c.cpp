/* The part of FAISS's official C API that index/ann.c uses, for distributions that ship its headers
 * without its symbols (Debian does). Where CMake finds a libfaiss_c, that is linked instead and
 * this file is left out.
 *
 * The only C++ of index/. Every function that can throw catches: no exception crosses into C. Codes
 * and the thread-local last error are those of the official implementation. */
#include <faiss/Index.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include <cstdio>
#include <exception>
#include <new>

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

/* The header's FAISS_IO_FLAG_MMAP is 1, which the library does not know: it would read the file
 * into memory. */
int real_flags(int flags)
{
    int out = 0;
    if ((flags & FAISS_IO_FLAG_MMAP) != 0) {
        out |= faiss::IO_FLAG_MMAP;
    }
    if ((flags & FAISS_IO_FLAG_READ_ONLY) != 0) {
        out |= faiss::IO_FLAG_READ_ONLY;
    }
    return out;
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

int faiss_Index_d(const FaissIndex *index)
{
    return static_cast<int>(real(index)->d);
}

idx_t faiss_Index_ntotal(const FaissIndex *index)
{
    return real(index)->ntotal;
}

int faiss_Index_train(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { real(index)->train(n, x); });
}

int faiss_Index_add_with_ids(FaissIndex *index, idx_t n, const float *x, const idx_t *xids)
{
    return guarded([&] { real(index)->add_with_ids(n, x, xids); });
}

int faiss_Index_search(const FaissIndex *index, idx_t n, const float *x, idx_t k, float *distances,
                       idx_t *labels)
{
    return guarded([&] { real(index)->search(n, x, k, distances, labels); });
}

FaissIndexIVF *faiss_IndexIVF_cast(FaissIndex *index)
{
    return reinterpret_cast<FaissIndexIVF *>(dynamic_cast<faiss::IndexIVF *>(real(index)));
}

void faiss_IndexIVF_set_nprobe(FaissIndexIVF *obj, size_t val)
{
    reinterpret_cast<faiss::IndexIVF *>(obj)->nprobe = val;
}

int faiss_write_index_fname(const FaissIndex *idx, const char *fname)
{
    return guarded([&] { faiss::write_index(real(idx), fname); });
}

int faiss_read_index_fname(const char *fname, int io_flags, FaissIndex **p_out)
{
    return guarded([&] {
        *p_out = reinterpret_cast<FaissIndex *>(faiss::read_index(fname, real_flags(io_flags)));
    });
}
}
