// Which dtypes a model has on a device: the loader and the planner ask the same functions.
import { ConfigError } from '@q/config';
import type { ModelConfig } from '@q/models';
import { isFloat, parseDType, type FloatDType } from '@q/tensor';

/** The dtype that an option names; undefined for `auto`. @throws ConfigError for what is no float */
export function floatDType(option: string, name: string, op = 'fromPretrained'): FloatDType | undefined {
  if (name === 'auto') return undefined;
  const dtype = parseDType(name);
  if (isFloat(dtype)) return dtype;
  throw new ConfigError(op, `${option} is ${name}`, { fix: 'use float32, float16, bfloat16 or auto' });
}

/** The dtype that the weights of a checkpoint have, as its config says. @param otherwise where it says nothing */
export const storedDType = (config: ModelConfig, otherwise: FloatDType = 'f16'): FloatDType =>
  (config.dtype === null ? undefined : floatDType('dtype', config.dtype)) ?? otherwise;

/** The model's dtype where the device computes in it; the CPU computes in f32 whatever the weights are stored in. */
export const activationDType = (computes: readonly FloatDType[], wanted: FloatDType): FloatDType =>
  computes.includes(wanted) ? wanted : computes[0];

/** The dtype of cached keys and values: what the caller says, else that of the activations. */
export const cacheDType = (given: FloatDType | undefined, activations: FloatDType): FloatDType => given ?? activations;

/** What devices compute in when they cannot be asked: a CPU in f32 only, a GPU in each. */
export const computeDTypes: Readonly<Record<'cpu' | 'gpu', readonly FloatDType[]>> = {
  cpu: ['f32'],
  gpu: ['f32', 'f16', 'bf16'],
};
