import type { ParameterSlot, Source } from '@q/tensor';
import { Linear } from './nn/linear.js';
import type { Module } from './nn/module.js';

/**
 * What a loader must fill, in the order of the modules.
 * @param tied parameters that share memory: target to source
 * @param sources where files keep a parameter; undefined: a tensor of its own name
 */
export function parameterSlots(
  model: Module,
  tied: Readonly<Record<string, string>> = {},
  sources: (parameter: string) => readonly Source[] | undefined = () => undefined,
): ParameterSlot[] {
  const slots: ParameterSlot[] = [];
  for (const { path, module } of model.walk()) {
    if (module instanceof Linear) {
      const name = `${path}.weight`;
      const { outFeatures, inFeatures } = module;
      slots.push({
        kind: 'linear',
        module: path,
        name,
        shape: [outFeatures, inFeatures],
        sources: sources(name),
        tiedTo: tied[name],
        load: (weight, options) => module.load(weight, options),
        current: () => module.weight,
      });
    }
    for (const [key, parameter] of module.parameters) {
      const name = path ? `${path}.${key}` : key;
      slots.push({
        kind: 'tensor',
        name,
        shape: parameter.shape,
        sources: sources(name),
        tiedTo: tied[name],
        optional: parameter.options.optional,
        inFp32: parameter.options.inFp32,
        load: (tensor, options) => parameter.load(tensor, options),
        current: () => parameter.tensor,
      });
    }
  }
  return slots;
}
