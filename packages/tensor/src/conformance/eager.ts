// Eager numerics: the ops of a backend that computes step by step. A backend of its own is needed, since numerics belong to a backend; cases run
// the commands themselves.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import { dtypes, type FloatDType } from '../dtype.js';
import { partArgs, outputWidth, type LinearPart } from '../ops/linear-command.js';
import { multiply } from '../ops/elementwise.js';
import { numbers, type ConformanceCase } from './harness.js';
import { carried, formats, input, own } from './linear.js';
