"""Every threshold of the doctor, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A number that a figure is held against.

    Args:
        value: the number.
        unit: of the figure.
        source: the paper, the derivation, or the experiment that set it.
    """

    value: float
    unit: str
    source: str


THRESHOLDS: dict[str, Threshold] = {
    "accumulated_noise": Threshold(
        0.3,
        "relative noise of a mini-batch's mean",
        "as batch_noise; the samples of one step of the optimiser together would stay below it",
    ),
    "averaged_gap": Threshold(
        0.1,
        "relative error of a normaliser's outputs",
        "of averaged weights the statistics can be estimated in one pass, which leaves less than 0.02 in "
        "resnet20 on the digits; a tenth of a deviation is as much as a batch of 100 samples errs",
    ),
    "batch_noise": Threshold(
        0.3,
        "relative noise of a mini-batch's mean",
        "1/√11: the mean of 11 independent elements. Wu & He 2018, arXiv:1803.08494, table 2: ResNet-50's "
        "error is the same from 32 down to 16 samples, then rises by 1.2, 3.7 and 11.1 points at 8, 4 and 2",
    ),
    "batch_samples": Threshold(
        8.0,
        "samples of a mini-batch",
        "Wu & He 2018, arXiv:1803.08494, table 2: at 4 samples ResNet-50's error is 3.7 points higher "
        "than at "
        "32, at 2 it is 11.1 points higher",
    ),
    "company_gap": Threshold(
        1e-3,
        "relative difference of the outputs",
        "what sums in another order may make of float32 in a deep network, √(2^-23) and as much again; in "
        "half precision √eps of that is allowed",
    ),
    "eps_share": Threshold(
        0.5,
        "share of channels",
        "a channel whose variance is eps comes out with a deviation of 1/√2 instead of 1, of less with less",
    ),
    "mode_loss": Threshold(
        1.25,
        "times the loss in training mode",
        "lenet and a Transformers ResNet on Fashion-MNIST, resnet20 on the digits, 48 steps or more of "
        "SGD at "
        "0.1 or Adam at 0.001, where the statistics follow: the ratio is at most 1.12 in lenet; where it is "
        "more in the others, the statistics lag",
    ),
    "mode_outputs": Threshold(
        1.0,
        "relative difference of the outputs in the two modes",
        "the outputs in inference are as far from those in training as those of different samples are",
    ),
    "padding_gap": Threshold(
        0.1,
        "relative error of the outputs at the other positions",
        "a tenth of a deviation, the noise of a mean of 100 independent elements: padding then does what a "
        "batch of 100 elements would",
    ),
    "rank_distance": Threshold(
        6.0,
        "times the noise of the running mean",
        "two moving averages of independent mini-batches differ by √2·√(momentum/(2 - momentum)) times "
        "the noise "
        "of a mini-batch's mean; six such deviations among thousands of channels are no chance",
    ),
    "stale_gap": Threshold(
        0.5,
        "relative error of a normaliser's outputs",
        "lenet and a Transformers ResNet on Fashion-MNIST with batch norm, batches of 16 to 64, SGD at "
        "0.05 to "
        "0.1 or Adam at 0.001: from 64 to 256 mini-batches after the start the worst layer's error is 0.06 "
        "to 0.42, and the losses in both modes are within 26 % of each other",
    ),
    "stale_lag": Threshold(
        5.0,
        "times the lag that the moments' velocity explains",
        "in the same runs and in resnet20 on Fashion-MNIST with SGD at 0.1, from 8 mini-batches on, the "
        "error "
        "is at most 4.2 times what a moving average lags behind moments that move as fast as in the trial; "
        "images scaled by 2 and shifted by 1 make it 8 to 16 times",
    ),
    "unlike_batches": Threshold(
        2.0,
        "times the noise of samples drawn at random",
        "lenet, resnet20 and a Transformers ResNet, shuffled, fresh and trained: 0.9 to 1.3 over 8 "
        "batches of 64; "
        "resnet20 on the digits sorted by class: 2.9",
    ),
    "norm_weight_decay": Threshold(
        0.0,
        "weight decay",
        "weight and bias of a normaliser set scale and position, which decay would pull to 0; every layer "
        "after it is then asked to make up for that (He et al. 2019, arXiv:1812.01187, section 3.1)",
    ),
    "group_elements": Threshold(
        2.0,
        "elements per moment",
        "m centred and scaled elements keep m - 2 degrees of freedom: of one 0 is left, of two ±1; without "
        "centring (RMS norm) m - 1, and of one ±1",
    ),
    "momentum_greatest": Threshold(
        0.5,
        "weight of the newest batch",
        "above 1/2 the newest batch weighs more in the running statistics than all before it together",
    ),
    "momentum_least": Threshold(
        1e-4,
        "weight of the newest batch",
        "the smallest in published recipes is 3e-4 (decay 0.9997 of TensorFlow's MobileNets, for 100,000s of "
        "batches); below 1e-4 more than 90 % of the initial 0 and 1 is left after 1,000 batches",
    ),
    "momentum_slow": Threshold(
        0.005,
        "weight of the newest batch",
        "below it more than 919 batches pass, an epoch of 60,000 images in batches of 64, until less than "
        "1 % of the running statistics is the initial 0 and 1. Experiment: lenet on Fashion-MNIST (SGD at "
        "0.05 with momentum 0.9, batches of 64), accuracy in inference against that with statistics "
        "estimated anew: 5 % left of the initial ones lose 2 to 7 points, 37 % to 41 % lose 28 to 43, "
        "74 % lose 50 to 68. Keras's MobileNets have 0.001 and 0.0003, for 100,000s of batches",
    ),
    "dropout_variance": Threshold(
        1.5,
        "variances in training and in inference, the larger over the smaller",
        "experiment: MLP with 128 units on scikit-learn's digits, 8 epochs, 5 seeds; how much the validation "
        "loss is above that with statistics recalibrated without dropout. Linear, ReLU, dropout, batch norm, "
        "twice: nothing at a ratio of 1.13, 3 to 11 % from 1.28 to 2.0 (0.3 % accuracy), 21 % at 3.7, "
        "100 % at 9.6. With a linear layer between dropout and batch norm: nothing up to 1.4, 11 % at 1.9. "
        "Chance makes 4 %",
    ),
    "nonfinite": Threshold(
        0.0,
        "elements",
        "a NaN or infinity in a sum makes the whole sum one: every weight of the layer, after the next step",
    ),
    "input_offset": Threshold(
        3.0,
        "deviations",
        "for one feature, the Hessian of a linear layer has eigenvalues 1 and 1 + (mean/deviation)² in its "
        "weight and bias: at 3 one is 10 times the other (LeCun et al. 1998, section 4.3)",
    ),
    "input_scale": Threshold(
        10.0,
        "times 1",
        "the step in a linear layer's output goes with the square of its input: at 10 times the size, or a "
        "tenth, the learning rate is off by 100",
    ),
    "feature_scales": Threshold(
        100.0,
        "ratio of deviations",
        "steps in the output go with the square: features that are 100 times smaller learn 10,000 times "
        "slower; pixels of Fashion-MNIST, each taken as a feature, differ by 45 (10th and 90th percentile)",
    ),
    "saturated_share": Threshold(
        0.75,
        "share of outputs",
        "three quarters of the gradient's elements are then cut to 5 % or less. Healthy networks "
        "(experiment: see gradient_imbalance): 0.001 with a normaliser, up to 0.56 in a tanh MLP that "
        "trains well without; with weights of deviation 1, 0.89 to 1",
    ),
    "dead_seen": Threshold(
        60.0,
        "elements of each unit",
        "of a unit that is silent in n elements, less than 3/n of all are active, with 95 % confidence: 5 % "
        "at 60",
    ),
    "dead_share": Threshold(
        0.5,
        "share of units",
        "half of the layer is then lost. Healthy networks (experiment: see gradient_imbalance): none with "
        "batch norm, up to 0.22 without, after 30 steps; 20 ReLU layers as PyTorch initialises them, 0.59",
    ),
    "dead_few": Threshold(
        0.1,
        "share of units",
        "healthy networks without batch norm have up to 0.22 (experiment: see gradient_imbalance): worth "
        "knowing, and no more",
    ),
    "collapsed_share": Threshold(
        0.5,
        "share of channels",
        "half of the layer carries nothing then; pruning by this weight takes up to 0.7 of all channels "
        "without loss, but is done after training (Liu et al. 2017, arXiv:1708.06519)",
    ),
    "collapsed_few": Threshold(
        0.1,
        "share of channels",
        "some channels of well-trained networks do without (Liu et al. 2017, arXiv:1708.06519)",
    ),
    "vanishing_gradient": Threshold(
        1e-3,
        "of the largest ‖g‖/‖w‖",
        "sigmoid MLPs without a normaliser have 4e-4 at 6 layers and 1e-6 at 10; no layer of a healthy "
        "network less than 0.0015 (experiment: see gradient_imbalance)",
    ),
    "diverging_loss": Threshold(
        1.5,
        "times the loss of answers that know nothing of their sample",
        "two convolutions on Fashion-MNIST, fresh or trained for 3 epochs, without a norm and with batch "
        "norm, under SGD at 0.003 to 10, the same with momentum, and Adam at 0.0001 to 0.3: fresh ones have "
        "at most 1.04 at the rate that is best for them three epochs later; those above 1.5 end there with "
        "1.5 times the best loss or more",
    ),
    "forgetting_loss": Threshold(
        1.0,
        "times the loss of answers that know nothing of their sample",
        "of a network that loses less than half as much before: it has forgotten what it knew. In the runs "
        "of diverging_loss the trained have at most 0.91 at the rate that is best for them, one of six 1.02; "
        "those that never come back have 1.3 and more",
    ),
    "exploding_update": Threshold(
        3.0,
        "‖Δw‖/‖w‖",
        "after such a step nothing is left of the weights. Healthy networks: at most 1.1, at the first step "
        "of SGD with learning rate 0.1, and most below 0.3; 20 layers with weights of deviation 0.5 or 1: "
        "2e10 and 4e4 (experiment: see gradient_imbalance). Three convolutions with batch norm that are "
        "trained, at learning rate 10: 3.8, and the loss goes from 0.47 to 17; at 30: 39, and 650",
    ),
    "exploding_gradient": Threshold(
        1e3,
        "‖g‖/‖w‖",
        "a learning rate of 0.001 would replace the weights in one step. Healthy networks: at most 3.7; "
        "large weights: 2e5 and more (experiment: see gradient_imbalance). A loss that is summed over a "
        "batch, and not averaged, has the batch's size as a factor",
    ),
    "exploding_backwards": Threshold(
        1e3,
        "times",
        "from the layers at the loss to those at the input, as in gradient_imbalance: tanh MLPs of 20 layers "
        "with weights of deviation 1 have 9e4",
    ),
    "gradient_imbalance": Threshold(
        10.0,
        "times",
        "experiment on Fashion-MNIST (batches of 32; SGD with learning rate 0.1, with momentum at 0.05, and "
        "Adam at 0.001; fresh and after 30 steps), the median over 8 steps of ‖g‖/‖w‖ in the third of the "
        "layers at the input against that at the loss. Nineteen healthy networks (LeNet, ResNet-20, a "
        "Transformers ResNet and ViT, VGG, LSTMs, MLPs of 3 and 6 layers): 0.19 to 4.5. MLP of 20 ReLU "
        "layers with batch norm, which learns badly: 13, as mean field theory says (Yang et al. 2019, "
        "arXiv:1902.08129). Without a normaliser: LeNet with sigmoids 0.018, MLP of 6 layers 0.001, LeNet "
        "with weights of deviation 1 14 and 28",
    ),
    "input_drift": Threshold(
        3.0,
        "deviations",
        "normal distributions that lie 3 deviations apart overlap by 13 %. Experiment (see "
        "gradient_imbalance): networks with batch norm have at most 1.0, and 0.05 after 30 steps; without, "
        "LeNet with sigmoids 6 and the MLP of 6 layers 37",
    ),
    "input_drift_some": Threshold(
        1.0,
        "deviations",
        "normal distributions that lie 1 deviation apart overlap by 62 %",
    ),
}
