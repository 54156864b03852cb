import { MAX_TEMPLATE_LENGTH, MAX_TEMPLATE_RANGE, MAX_TEMPLATE_SIZE, MAX_TEMPLATE_STEPS } from '../limits.js';
import type { TemplateLimits } from './jinja/errors.js';

/** The defaults of the option `templateLimits`. */
export const TEMPLATE_LIMITS: TemplateLimits = {
  size: MAX_TEMPLATE_SIZE,
  steps: MAX_TEMPLATE_STEPS,
  length: MAX_TEMPLATE_LENGTH,
  range: MAX_TEMPLATE_RANGE,
};
