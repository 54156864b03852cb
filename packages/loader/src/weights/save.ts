import type { ParameterSlot } from '@q/tensor';
import type { StoredTensor } from '../formats/format.js';
import { formatOfWeight } from '../formats/registry.js';
import { fromDevice } from '../formats/stored-tensor.js';

export type { StoredTensor } from '../formats/format.js';

/**
 * The tensors of a checkpoint that holds these slots as they are; tied weights are left out.
 * @param names of parameters that are saved under another name than the model's
 */
export async function storedTensors(
  slots: readonly ParameterSlot[],
  names: ReadonlyMap<string, string> = new Map(),
): Promise<StoredTensor[]> {
  const tensors: StoredTensor[] = [];
  for (const parameter of slots) {
    if (parameter.tiedTo !== undefined) continue;
    const slot = named(parameter, names.get(parameter.name) ?? parameter.name);
    if (slot.kind === 'tensor') tensors.push(fromDevice(slot.name, slot.current()));
    else {
      const weight = slot.current();
      tensors.push(...(await formatOfWeight(weight).write(slot, weight)));
    }
  }
  return tensors;
}

/** The slot of a parameter under another name. */
const named = (slot: ParameterSlot, name: string): ParameterSlot =>
  slot.kind === 'linear' ? { ...slot, name, module: name.slice(0, -'.weight'.length) } : { ...slot, name };
