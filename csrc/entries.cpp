// The definitions of bind/entries.h, one file for each op, compiled together.
#include "bind/cld_step.h"
#include "bind/dsm_loss.h"
#include "bind/instance_norm_plus.h"
#include "bind/langevin_step.h"
#include "bind/noise.h"
#include "bind/perturb.h"
#include "bind/upsample_bicubic2x.h"
#include "bind/winograd.h"
