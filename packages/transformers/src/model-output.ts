import type { Tensor } from '@q/tensor';

/** What a pass gives, with a key for each of its tensors that is there; dispose it to free them. */
export class ModelOutput implements Disposable {
  /** Behind the last norm (of the decoder, where there are two): [batch, length, hidden], zero where the mask is 0. */
  readonly lastHiddenState: Tensor;
  /** [batch, length, vocab], zero where the mask is 0; of models with a language modelling head. */
  declare readonly logits?: Tensor;
  /** Of the first token, through the pooling layer: [batch, hidden]; of models that have one. */
  declare readonly poolerOutput?: Tensor;
  /** Before the first layer and behind each one, the last behind the last norm: [batch, length, hidden] each. */
  declare readonly hiddenStates?: readonly Tensor[];
  /** What the encoder of an encoder-decoder gave: [batch, length, hidden], zero where the mask is 0. */
  declare readonly encoderLastHiddenState?: Tensor;
  /** As `hiddenStates`, of an encoder-decoder's encoder. */
  declare readonly encoderHiddenStates?: readonly Tensor[];
  /** As `hiddenStates`, of an encoder-decoder's decoder. */
  declare readonly decoderHiddenStates?: readonly Tensor[];

  constructor(tensors: Omit<ModelOutput, 'data' | 'dispose' | typeof Symbol.dispose>) {
    this.lastHiddenState = tensors.lastHiddenState;
    for (const [name, value] of Object.entries(tensors))
      if (value !== undefined) Object.assign(this, { [name]: value });
  }

  /** The numbers of the logits, or of `lastHiddenState` where the model has no head. */
  data(): ReturnType<Tensor['data']> {
    return (this.logits ?? this.lastHiddenState).data();
  }

  dispose(): void {
    for (const value of Object.values(this) as (Tensor | readonly Tensor[])[])
      for (const tensor of [value].flat() as Tensor[]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
