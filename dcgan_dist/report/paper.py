"""What the paper shows and reports (Radford, Metz, Chintala 2015, version 2), as text and numbers.

Numbers marked with a dagger are as widely quoted; they were not read again in the paper.
"""

from dataclasses import dataclass

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A figure or table: what the paper says of it, its numbers, and the command that makes ours."""

    key: str
    title: str
    says: str
    command: str
    rows: Rows = ()


EXPLORE = "python -m dcgan_dist.explore"
PROBE = "python -m dcgan_dist.probe"

SECTIONS = (
    Section(
        "training",
        "Training and samples: figures 2, 3, 10 and 11",
        "LSUN bedrooms after one and five epochs, faces, ImageNet at 32x32. Learning rate 0.0002, beta1 0.5, "
        "batch 128. No number is reported for the samples.",
        "torchrun --nproc-per-node 2 -m dcgan_dist.train RUN/config.yaml --run.dir NEW",
    ),
    Section(
        "underfit",
        "Visual underfitting: figures 2 and 3",
        "At the fifth epoch there appears to be evidence of visual underfitting: repeated noise textures "
        "across samples, such as the base boards of some of the beds.",
        f"{EXPLORE} underfit RUN",
    ),
    Section(
        "neighbours",
        "Memorising: section 4.1",
        "Memorising is held to be unlikely after one pass with a small learning rate; training images were "
        "de-duplicated with a 3072-128-3072 autoencoder, which removed about 275,000. No nearest neighbours "
        "are searched.",
        f"{EXPLORE} neighbours RUN --held-out DATASET",
    ),
    Section(
        "cifar10",
        "CIFAR-10 by features of an ImageNet discriminator: table 1",
        "28,672 features, max-pooled to 4x4 from all six convolutions, and an L2-SVM.",
        f"{PROBE} cifar10 RUN --data TRAIN --test TEST",
        (
            ("model", "accuracy %", "400 per class %", "most units"),
            ("1-layer K-means", "80.6", "63.7 +-0.7 †", "4800"),
            ("3-layer K-means, learned fields", "82.0", "70.7 +-0.7 †", "3200 †"),
            ("view-invariant K-means", "81.9 †", "72.6 +-0.7 †", "6400 †"),
            ("Exemplar CNN", "84.3 †", "77.4 +-0.2 †", "1024 †"),
            ("DCGAN and L2-SVM", "82.8", "73.8 +-0.4 †", "512"),
        ),
    ),
    Section(
        "svhn",
        "SVHN with 1,000 labels: table 2",
        "10,000 labelled validation pictures choose C. The supervised CNN of the same architecture, best of "
        "64 trials, is far worse; its number is a validation error.",
        f"{PROBE} svhn RUN --data TRAIN --test TEST",
        (
            ("model", "test error %"),
            ("KNN", "77.93"),
            ("TSVM", "66.55"),
            ("M1+KNN", "65.63 †"),
            ("M1+TSVM", "54.33 †"),
            ("M1+M2", "36.02"),
            ("SWWAE without dropout", "27.83"),
            ("SWWAE with dropout", "23.56"),
            ("DCGAN and L2-SVM", "22.48"),
            ("supervised CNN, validation", "28.87"),
        ),
    ),
    Section(
        "digits",
        "Digits: real data that every machine has; not in the paper",
        "The protocol of table 2 on scikit-learn's 1,797 digits.",
        f"{PROBE} digits RUN",
    ),
    Section(
        "imagefolder",
        "Your own labelled pictures: not in the paper",
        "The protocol of table 2 on any dataset with classes.",
        f"{PROBE} imagefolder RUN --data TRAIN --test TEST",
    ),
    Section(
        "walk",
        "Walking in the latent space: figure 4",
        "Interpolation between random points of z: smooth transitions, every frame looks like a bedroom; "
        "objects appear and vanish. Sharp transitions would be a sign of memorisation.",
        f"{EXPLORE} walk RUN",
    ),
    Section(
        "filters",
        "What the discriminator looks for: figure 5",
        "Guided backpropagation from the first six maps of the last convolution: a significant minority "
        "respond to beds; random filters show little to no discrimination. No number.",
        f"{EXPLORE} filters RUN",
    ),
    Section(
        "forget",
        "Forgetting windows: figure 6",
        "52 boxes drawn by hand over 150 samples, a logistic regression on the second highest convolution "
        "layer, about 200 maps with positive weights dropped: the network mostly forgets to draw windows and "
        "replaces them with other objects. No control with random maps.",
        f"{EXPLORE} forget RUN",
    ),
    Section(
        "arithmetic",
        "Vector arithmetic: figure 7",
        "smiling woman - neutral woman + neutral man = smiling man; man with glasses - man without + woman "
        "without = woman with glasses. Means of three exemplars; single ones were unstable. The same on "
        "pixels gives noisy overlap.",
        f"{EXPLORE} arithmetic RUN",
    ),
    Section(
        "turn",
        "Turn vector: figure 8",
        "From four averaged samples of faces looking left against looking right; adding it to random samples "
        "transforms their pose reliably.",
        f"{EXPLORE} turn RUN",
    ),
    Section(
        "mnist",
        "Conditional MNIST: table 3, figure 9",
        "Nearest neighbour on generated digits matches that on real ones.",
        f"{PROBE} mnist OUT --data TRAIN --test TEST",
        (
            ("model", "test error %, 50 thousand †", "10 million †"),
            ("AlignMNIST", "-", "1.4"),
            ("InfiMNIST", "-", "2.6"),
            ("real data", "3.1", "-"),
            ("GAN", "6.28", "5.65"),
            ("DCGAN", "2.98", "1.48"),
        ),
    ),
    Section(
        "judge",
        "The judge of the measures above: not in the paper",
        "The paper judges by eye. Here a small network taught on the dataset's labels judges; it is judged "
        "on held-out real pictures, and on generated ones labelled by hand.",
        f"{EXPLORE} judge RUN --labels LABELS",
    ),
)
