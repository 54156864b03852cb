// Loads a model in 4 bits and writes its text as it comes.
import { AutoModelForCausalLM, BitsAndBytesConfig } from '@q/transformers';

await using model = await AutoModelForCausalLM.fromPretrained('@q/nano', {
  quantizationConfig: new BitsAndBytesConfig({
    loadIn4bit: true,
    bnb4bitQuantType: 'nf4',
    bnb4bitUseDoubleQuant: true,
  }),
  deviceMap: 'cpu', // 'cuda:0' or 'auto' with an NVIDIA GPU
});
console.log(`${model.weightBytes} bytes of weights on ${model.backend.name}`, model.summary().linears);

for await (const { text, finishReason, stats } of model.generate({
  prompt: 'export function add(a, b) {',
  maxNewTokens: 32,
})) {
  process.stdout.write(text);
  if (finishReason) console.log(`\n${finishReason}: ${stats?.decodeTokensPerSecond.toFixed(0)} tokens a second`);
}
