import type { ParameterSlot } from '@q/tensor';
import type { StoredTensor } from '../formats/format.js';
import { formatOfWeight } from '../formats/registry.js';
import { fromDevice } from '../formats/stored-tensor.js';

export type { StoredTensor } from '../formats/format.js';

/** The tensors of a checkpoint that holds these slots as they are; tied weights are left out. */
export async function storedTensors(slots: readonly ParameterSlot[]): Promise<StoredTensor[]> {
  const tensors: StoredTensor[] = [];
  for (const slot of slots) {
    if (slot.kind === 'tensor') tensors.push(fromDevice(slot.name, slot.current()));
    else if (slot.tiedTo === undefined) {
      const weight = slot.current();
      tensors.push(...(await formatOfWeight(weight).write(slot, weight)));
    }
  }
  return tensors;
}
