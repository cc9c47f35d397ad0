/* What bindgen reads: the verbs, whose hot calls are static inline functions. */
#include <infiniband/verbs.h>
